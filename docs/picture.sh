#!/usr/bin/env bash
# Draw docs/exp1.svg: the output of `kdfast run exp1` on a terminal of 80 columns. Needs tmux, and kdfast on the PATH.
set -euo pipefail
to=$(realpath "$(dirname "$0")")/exp1.svg
command -v kdfast >/dev/null || { echo "install kdfast first: it is not on the PATH"; exit 1; }
empty=$(mktemp -d)
trap 'tmux -L picture kill-server; rm -rf "$empty"' EXIT
tmux -L picture new-session -d -x 80 -y 40 -c "$empty" "PATH='$PATH' kdfast run exp1; sleep infinity"
until tmux -L picture capture-pane -p | grep -q '^next '; do sleep 1; done
tmux -L picture capture-pane -ep >"$empty/screen"
python - "$empty/screen" "$to" <<'PYTHON'
import io, sys
from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.text import Text
lines = list(AnsiDecoder().decode(open(sys.argv[1]).read().rstrip()))  # a style may go on in the next line
del lines[: next(at for at, line in enumerate(lines) if '━' in line.plain)]  # notes on the load of this machine
console = Console(record=True, width=80, file=io.StringIO())
console.print(Text('$ kdfast run exp1', style='bold'), *lines, sep='\n')
console.save_svg(sys.argv[2], title='kdfast')
PYTHON
