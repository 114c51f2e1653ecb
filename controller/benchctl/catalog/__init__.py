"""The catalogue: which servers there are and what they cost, taken in from Spare Cores, price lists and gpuhunt.

What is read becomes frozen values at the boundary (:mod:`files`, :mod:`price_list`, :mod:`sparecores_database`,
:mod:`gpu_prices`), :mod:`checks` doubts prices without knowing of a database, and :mod:`store` writes all of one import
in one transaction. Nothing is ever deleted: what vanishes or changes is closed.
"""
