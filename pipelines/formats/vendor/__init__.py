"""ECGs in the formats of carts, archives and Holter recorders; `read.py` is the entry, `recognize.py` names them."""
