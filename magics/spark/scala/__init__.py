"""Cells of Scala: a REPL inside the session's driver, reached through the session's own connection.

`ScalaCell.scala` is compiled here with the Scala compiler of the pyspark package and sent to the session as class files, where it
is a function of SQL: nothing listens anywhere, and the server needs no part of ours.
"""
