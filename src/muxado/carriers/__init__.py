"""Sessions over other libraries' connections: WebSockets, also inside a web application.

Each module needs the library that it is named after, and is imported by its own name.
"""
