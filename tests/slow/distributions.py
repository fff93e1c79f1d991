"""Build the sdist and the wheel, install the wheel elsewhere and train with it.

python tests/slow/distributions.py           all checks; needs kdfast[dev]
python tests/slow/distributions.py wheel     those whose name contains one of the words

Build requirements are installed as setup.cfg and pyproject.toml state them, unless the interpreter has them already.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import trial

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = tempfile.TemporaryDirectory(prefix='packaging-')
HERE = Path(SCRATCH.name)
IN_THE_SDIST = (
    'README.md',
    'LICENSE',
    'CHANGELOG.md',
    'CONTRIBUTING.md',
    'AGENTS.md',
    'constraints.txt',
    'cli.py',
    '.ci/run',
    'recipes/exp1.py',
    'kdfast/report/page.html',
    'kdfast/py.typed',
    'kdfast/data/cifar10-small.tar.xz',
    'kdfast/data/cifar10-small.txt',
    'tests/conftest.py',
    'tests/test_docs.py',
    'tests/slow/distributions.py',
    'docs/README.md',
    'docs/build.py',
    'docs/template/module.html.jinja2',
    'docs/notebook.ipynb',
    'benchmarks/speed.py',
)


def call(*command, cwd=HERE, **variables):
    "Run a command outside of the checkout and return its output"
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'} | variables
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200
    )
    if done.returncode:
        raise AssertionError(f'{command}: exit status {done.returncode}: {(done.stderr or done.stdout)[-2000:]}')
    return done.stdout


def left_out(folder, names):
    "Leave out of the copy what was built or trained in the checkout"
    pattern = shutil.ignore_patterns('__pycache__', '*.egg-info')
    built_names = {'.git', '.venv', 'build', 'dist', 'runs'} if Path(folder) == ROOT else set()
    return pattern(folder, names) | built_names


def has_setuptools():
    "Whether the running interpreter has the setuptools that pyproject.toml requires"
    try:
        return int(version('setuptools').partition('.')[0]) >= 77
    except PackageNotFoundError:
        return False


@cache
def built():
    "Build the sdist, and the wheel from the sdist; return both files"
    source = HERE / 'source'
    shutil.copytree(ROOT, source, ignore=left_out)
    isolation = ['--no-isolation'] if has_setuptools() else []
    call(sys.executable, '-m', 'build', *isolation, '--outdir', HERE / 'dist', source)
    (sdist,) = (HERE / 'dist').glob('*.tar.gz')
    (wheel,) = (HERE / 'dist').glob('*.whl')
    return sdist, wheel


@cache
def installed():
    "Install the wheel into a fresh environment that sees the other packages of the running interpreter"
    folder = HERE / 'venv'
    venv.create(folder, with_pip=True)
    site_packages = next(folder.glob('lib*/python*/site-packages'), folder / 'Lib' / 'site-packages')
    before = names_in(site_packages)
    call(python_of(folder), '-m', 'pip', 'install', '--no-deps', '--no-index', built()[1])
    added = names_in(site_packages) - before
    others = [path for path in sys.path if Path(path).name in ('site-packages', 'dist-packages')]
    (site_packages / 'others.pth').write_text('\n'.join(others))  # their own .pth files are not read
    return folder, site_packages, added


def names_in(folder):
    return {file.name for file in folder.iterdir()}


def python_of(folder):
    return next(file for file in (folder / 'bin' / 'python', folder / 'Scripts' / 'python.exe') if file.exists())


def kdfast(*arguments):
    "Run the installed command in an empty directory"
    folder, _, _ = installed()
    work = HERE / 'work'
    work.mkdir(exist_ok=True)
    command = next(
        (folder / name).resolve() for name in ('bin/kdfast', 'Scripts/kdfast.exe') if (folder / name).exists()
    )
    return call(command, *arguments, cwd=work, XDG_CACHE_HOME=str(HERE / 'cache'), CUDA_VISIBLE_DEVICES='')


def check_sdist():
    "The sdist has recipes, tests, documentation and benchmarks, and nothing that was built"
    with tarfile.open(built()[0]) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    missing = [name for name in IN_THE_SDIST if name not in names]
    assert not missing, f'missing from the sdist: {missing}'
    tracked = call('git', 'ls-files', cwd=ROOT).splitlines() if (ROOT / '.git').exists() else []
    wanted = [name for name in tracked if (ROOT / name).exists()]
    missing = [name for name in wanted if name not in names]
    assert not missing, f'tracked, and missing from the sdist: {missing}'
    extra = [name for name in names if '__pycache__' in name or name.startswith(('docs/site', 'runs/', '.venv/'))]
    assert not extra, f'should not be in the sdist: {extra[:5]}'


def check_wheel():
    "The wheel has every module of kdfast, the recipes as kdfast.recipes, and nothing else"
    with zipfile.ZipFile(built()[1]) as archive:
        names = set(archive.namelist())
    others = {name for name in names if not name.startswith('kdfast/') and '.dist-info/' not in name}
    assert not others, f'outside of kdfast in the wheel: {sorted(others)[:5]}'
    sources = [file.relative_to(ROOT).as_posix() for file in (ROOT / 'kdfast').rglob('*.py')]
    sources += [f'kdfast/{file.relative_to(ROOT).as_posix()}' for file in (ROOT / 'recipes').glob('*.py')]
    missing = [name for name in (*sources, 'kdfast/py.typed', 'kdfast/report/page.html') if name not in names]
    assert not missing, f'missing from the wheel (add their package to setup.cfg): {missing}'


def check_site_packages():
    "Only kdfast is put into site-packages"
    _, site_packages, added = installed()
    others = {name for name in added if name != 'kdfast' and not name.startswith('kdfast-')}
    assert not others, f'in site-packages besides kdfast: {sorted(others)}'
    folder = installed()[0]
    where = call(python_of(folder), '-c', 'import kdfast, kdfast.recipes; print(kdfast.__file__)').strip()
    assert Path(where).resolve().is_relative_to(site_packages.resolve()), f'kdfast was imported from {where}'


def check_ls():
    "kdfast ls lists every recipe"
    listed = kdfast('ls')
    missing = [
        file.stem for file in (ROOT / 'recipes').glob('*.py') if file.stem != '__init__' and file.stem not in listed
    ]
    assert not missing, f'kdfast ls does not list {missing}'


def check_training():
    "kdfast run trains a recipe, and kdfast check finds its run directory whole"
    kdfast('run', 'baseline', '--epochs', '1')
    assert (HERE / 'work' / 'runs' / 'cifar10-small' / 'baseline,epochs=1' / '0' / 'weights.safetensors').exists()
    kdfast('check')


CASES = {
    'sdist': check_sdist,
    'wheel': check_wheel,
    'site-packages': check_site_packages,
    'ls': check_ls,
    'training': check_training,
}

if __name__ == '__main__':
    trial.run('distributions', CASES.items())
