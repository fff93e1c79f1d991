"Layouts of data sets, one per module; `registry` finds them and explains how to add one."
