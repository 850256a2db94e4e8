"""Where could objects be? Class-agnostic region proposals as boxes."""

from proposals.selective_search import SelectiveSearch, Strategy

__all__ = ["SelectiveSearch", "Strategy"]
