"""The system-call filters, precompiled: `*.bpf` is what `make.py` writes; nothing at run time needs libseccomp."""
