"What was done to the data, counted, with one example of each: reported, but no error."

from collections import defaultdict


class Notes:
    "What is no error, but should be reported: how often, and one example."

    def __init__(self):
        self.found = defaultdict(list)

    def add(self, what, name):
        self.found[what].append(name)

    def said(self):
        return [
            f'{what}: {len(names):,} ({names[0]}{", …" if len(names) > 1 else ""})' if names[0] else what
            for what, names in self.found.items()
        ]
