"""The contenders written in Python: each module is a server and a client of its own."""
