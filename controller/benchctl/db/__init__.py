"""The database: what was measured, where, on what, and at what price.

:mod:`schema` gathers the tables, :mod:`engine` opens and upgrades a database, :mod:`queries` holds every question.
"""
