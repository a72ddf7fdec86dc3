"""What a GPU must say: every figure of this project that needs a card, from a bare machine. See docs/gpu_battery.md.

`battery` has what the parts share: sizes, timing, and one JSON line per figure. Each other module is a part, whose
`run(battery)` names its figures and makes those that are not there; `__main__` runs the parts that are asked for.
"""
