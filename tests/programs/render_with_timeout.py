"""Render a folder in two processes with a short time limit, and print the manifest.

python -m tests.programs.render_with_timeout RECORDINGS TILE_FOLDER
"""

import sys

from cqt2img.data.render import render

if __name__ == "__main__":
    tiles = render(sys.argv[1], sys.argv[2], "fast", n_jobs=2, timeout=4)
    columns = ["path", "status", "reason", "message", "n_tiles"]
    print(tiles.recordings[columns].to_json(orient="records"))
