"""Commands for networks: layers, export, predict."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from kdfast.cli.app import MODELS, app, out, print_json, print_line, status
from kdfast.cli.options import (
    DEFAULT_RUNS,
    DataNameOption,
    JsonOption,
    RunArgument,
    RunSeedOption,
    RunsOption,
    TrustOption,
)
from kdfast.cli.run import quiet_imports, trust_runs
from kdfast.core import names
from kdfast.core.errors import KdfastError
from kdfast.core.format import size_text

EXPORTED = ('.onnx', '.safetensors')


@app.command(rich_help_panel=MODELS)
def layers(
    network: Annotated[str, typer.Argument(help=f'The student: {names.ANY_NETWORK}.')],
    teacher: Annotated[
        Optional[str],
        typer.Option(help='The teacher, a network or a run directory: list the pairs of layers with the student.'),
    ] = None,
    size: Annotated[int, typer.Option(min=8, help='Height and width of the images.')] = 32,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
):
    """List layers, and pairs that a hint can use.

    Layers are listed with the shapes of their outputs. Pairs need --teacher.
    """
    with quiet_imports():
        from kdfast.models import layers
        from kdfast.models.saved import load_or_build
    if trust_code:
        trust_runs((network, teacher))
    found = {name: layers.layers(load_or_build(name, size=(size, size)), size) for name in (network, teacher) if name}
    if as_json:
        print_json({name: [asdict(layer) for layer in of_network] for name, of_network in found.items()})
    else:
        out.print(layers.view(found))


@app.command(rich_help_panel=MODELS)
def export(
    run: RunArgument,
    to: Annotated[
        Path, typer.Option(help='The file to write: .onnx, which includes normalization, or .safetensors, for kdfast.')
    ],
    images: Annotated[Optional[str], typer.Option(help='Path of the images of the run, if they have moved.')] = None,
    data: DataNameOption = None,
    seed: RunSeedOption = None,
    trust_code: TrustOption = False,
    runs: RunsOption = DEFAULT_RUNS,
):
    """Export a trained model to ONNX or safetensors.

    The file is verified: its predictions on the validation images are compared with those of the run.
    """
    from kdfast.runs.find import find_run

    run_dir = find_run(runs, run, data, seed)
    if to.suffix not in EXPORTED:
        raise KdfastError(f'--to {to}: expected a name that ends in {" or ".join(EXPORTED)}')
    if not to.parent.is_dir():
        raise KdfastError(f'{to.parent} is not a directory')
    with quiet_imports():
        from kdfast.export import export
        from kdfast.models import saved
    if trust_code:
        saved.trust_code(run_dir / 'weights.safetensors')
    with status(f'writing {to}'):
        changed, difference, n = export.export(run_dir, to, images)
    print_line(
        f'wrote {to}: {size_text(to.stat().st_size, 2)}; {changed} of {n:,} validation images are classified '
        f'differently than by the run; largest difference of a probability: {difference:.1g}'
    )


@app.command(rich_help_panel=MODELS)
def predict(
    run: Annotated[str, typer.Argument(help='A recipe that has been run, a run directory, or an exported file.')],
    image: Annotated[list[Path], typer.Argument(help='Images, and folders of images.')],
    data: DataNameOption = None,
    seed: RunSeedOption = None,
    trust_code: TrustOption = False,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
):
    """Classify images with a run or an exported model.

    Files that cannot be read are named at the end, with exit status 2.
    """
    from kdfast.runs.find import find_run, refuse_choice

    if Path(run).suffix in EXPORTED:
        refuse_choice(run, data, seed)
        file = Path(run)
    else:
        file = find_run(runs, run, data, seed) / 'weights.safetensors'
    with quiet_imports():
        from kdfast.export import predict
        from kdfast.models import saved
    if trust_code and file.suffix == '.safetensors':
        saved.trust_code(file)
    found = predict.predict(*predict.classifier(file), predict.image_files(image))
    if as_json:
        print_json(found)
    elif any('problem' not in prediction for prediction in found):
        out.print(predict.view(found), soft_wrap=True)
    predict.check_all_read(found)
