"""The names of LinkisMagic, so that its notebooks run unedited: `%load_ext tuttilab.magics.linkis_magic`.

Each name translates its line and calls what `%%spark`, `%%sparksql`, `%job` and `%spark` call; nothing is decided here.
"""
