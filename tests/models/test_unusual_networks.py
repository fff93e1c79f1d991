"Unusual networks are trained, saved and loaded with equal logits in another process, or rejected beforehand."

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdfast.core.errors import KdfastError
from kdfast.models.build import check_network
from kdfast.models.channels_last import channels_last
from kdfast.models.saved import build_for, save_network
from kdfast.runs import trust

FILE = Path(__file__).parents[1] / 'unusual_networks.py'
FUNCTION = re.compile(r'^def (\w+)\(n(?:, width)?\):\n((?: .*\n|\n)*)', re.M)
FOUND = [(name, ''.join(re.findall('# refused: (.*)', body))) for name, body in FUNCTION.findall(FILE.read_text())]
KEPT, REFUSED = [name for name, words in FOUND if not words], [pair for pair in FOUND if pair[1]]


@pytest.fixture(scope='module')
def two(data):
    "A data set of two classes"
    return replace(data, classes=['ape', 'bee'])


@pytest.mark.parametrize('name,words', REFUSED, ids=[name for name, _ in REFUSED])
def test_what_cannot_be_kept_is_refused_in_words(two, name, words):
    with pytest.raises(KdfastError) as said:
        check_network(f'{FILE}:{name}', two)
    assert words in said.value.message and '\n' not in said.value.message


def test_there_are_many():
    assert len(KEPT) >= 26 and len(REFUSED) >= 24


LOADS = '''
import sys, torch
from pathlib import Path
from kdfast.models.saved import load_network_file
torch.manual_seed(5)
for folder in map(Path, sys.argv[1:]):
    images,logits = torch.load(folder/'said.pt', weights_only=True)
    network = load_network_file(folder/'weights.safetensors')
    torch.manual_seed(1) # of what is random in evaluation, too
    with torch.no_grad(): assert (network(images) == logits).all(), folder
'''


def trained(network):
    "One step of an optimizer, and statistics that move"
    opt = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):
        torch.nn.functional.cross_entropy(
            network.train()(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 0, 1])
        ).backward()
        opt.step()
    return network.eval()


def test_what_is_kept_says_the_same_in_another_process(two, tmp_path):
    torch.manual_seed(0)
    for name in KEPT:
        check_network(f'{FILE}:{name}', two)
        (tmp_path / name).mkdir()
        network, project = build_for(f'{FILE}:{name}', two)
        trust.save_sources(project.sources, tmp_path / name)
        trust.accept(network.build_info)
        with torch.compiler.set_stance('force_eager'):
            trained(network)
        channels_last(network)
        save_network(network, tmp_path / name / 'weights.safetensors')
        images = torch.randn(2, 3, 8, 8)
        torch.manual_seed(1)
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):
            torch.save((images, network(images)), tmp_path / name / 'said.pt')
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', LOADS, *(tmp_path / name for name in KEPT if 'compiled' not in name)],
        check=True,
    )  # whose import takes long
