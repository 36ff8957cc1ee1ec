"""Where LinkisMagic has its module."""
