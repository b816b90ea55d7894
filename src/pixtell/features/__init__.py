"""Features <-> disk: every image goes through the encoder once; after that its features are read from disk.

    extraction.py   encoder and images -> the cache, going on where a killed one stopped
    cache.py        image_ids -> features, from a memory map
    store.py        the files, the lock, and what makes them whole

It knows neither data sets nor models; further views of an image are made by what the caller passes in.
"""

from pixtell.features.cache import FeatureCache
from pixtell.features.extraction import Views, extract_features

__all__ = ["FeatureCache", "Views", "extract_features"]
