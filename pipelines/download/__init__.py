"""Download: from a source's file list to the product `raw/<source>/<partition>`, files with verified checksums.

    mirror.py        where files come from: hosts, a mirror URL, or a mirror folder; lists a source's files
    layout.py        where a source's files are in a mirror folder; unread.py: what no source reads
    list_cache.py    local copies of the hosts' lists, for work without a network
    fetch.py         fetch the missing files of a list over many connections
    http.py          one file by HTTP: resume, retry, verify
    http_answers.py  what an answer's status, range and length mean
    multipart.py     one large file over several connections
    progress.py      progress and throughput as text
    step.py          the product, damaged files, discarding

The next step is `pipelines.harmonize`.
"""
