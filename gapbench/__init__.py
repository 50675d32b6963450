"""gapbench: flatten the last feature map into the dense layer, or average it first? Paired evidence."""

__version__ = "0.1.0"
