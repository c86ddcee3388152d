"""Identify who is playing, from constant-Q images of recordings.

>>> import cqt2img
>>> cqt2img.TileSpec.preset("piano").size
(192, 256)
"""

import lazy_loader

__version__ = "0.1.0"
# The public names stand in `__init__.pyi`, each once; a module loads at first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
