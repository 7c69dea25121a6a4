"""Data: where rows come from, how they are split, in which order they are visited.

Rows stay as they are stored (uint8, float32, on disk); `gather` turns the few that are asked for into float32.
"""

from ps_vae.data.columns import BIT, NUMBER, OTHERS, VALUES, Column
from ps_vae.data.dataset import SPLITS, Dataset, Split
from ps_vae.data.gather import gather
from ps_vae.data.moments import Moments, feature_moments
from ps_vae.data.order import rows_of
from ps_vae.data.source import LABELS, SOURCES, files_of, from_arrays, load, looked_for

__all__ = [
    "BIT",
    "LABELS",
    "NUMBER",
    "OTHERS",
    "SOURCES",
    "SPLITS",
    "VALUES",
    "Column",
    "Dataset",
    "Moments",
    "Split",
    "feature_moments",
    "files_of",
    "from_arrays",
    "gather",
    "load",
    "looked_for",
    "rows_of",
]
