"The photographs that come with kdfast. Imports nothing heavy: the command line reads the name of the default data set."

from pathlib import Path

PHOTOGRAPHS = 'cifar10-small'  # the default data set; cifar10-small.txt has its source
PHOTOGRAPHS_FILE = Path(__file__).with_name(f'{PHOTOGRAPHS}.tar.xz')
