"""
What the product costs in time: `make bench`.

Figures that depend on the machine stand beside a baseline of the same run, as a ratio.
Nothing here is a test: a slow machine is not a failure.
"""
