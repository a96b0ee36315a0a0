"""Care of a data home.

    garbage.py   find and remove outputs that nothing depends on
    verify.py    hash downloaded files again, and repair them
    products.py  compute the digests of products again, and mark the damaged
    upstream.py  compare a source's current file list with the one that was downloaded

`ecg gc`, `ecg verify` and `ecg upstream` call these.
"""
