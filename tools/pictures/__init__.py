"""The pictures in doc/pictures, made from real runs in namespaces of their own: `make pictures`.

terminal.py draws what a terminal shows, sessions.py types into one, plots.py draws measurements, and __main__.py has
the list of pictures.
"""
