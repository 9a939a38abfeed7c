"""The repository over HTTP, from a local folder. Holds no key, changes nothing, and serves nothing but objects.

For production any bucket or static web server does the same; this one is there from the first day.
"""

from instar.server.app import make_app
from instar.server.serve import Serving, serve, serve_app

__all__ = ["Serving", "make_app", "serve", "serve_app"]
