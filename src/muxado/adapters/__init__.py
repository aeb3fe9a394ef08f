"""Other libraries over muxado's streams, where they have no seam of their own for it.

Each module needs the library that it is named after, and is imported by its own name.
"""
