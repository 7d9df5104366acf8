"""Where the page lists the pack's nodes: a menu for each job that an artist has.

The page translates each part of a path by itself (locales/*/main.json, nodeCategories). All packs share these words:
a new one should mean the same anywhere.
"""

_PACK = "VDiT Attention"

#: A video with another's motion and camera, and what it needs: recordings and masks.
TRANSFER = f"{_PACK}/transfer"

#: What attention does.
LOOK = f"{_PACK}/look"

#: Less computed.
SPEED = f"{_PACK}/speed"

SINKS = f"{_PACK}/sinks"

#: What is kept for another day.
FILES = f"{_PACK}/files"

#: What works without a download.
DEMO = f"{_PACK}/demo"
