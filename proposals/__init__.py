"""Where could objects be? Class-agnostic region proposals as boxes."""

from proposals.files import ProposalFile
from proposals.selective_search import SelectiveSearch
from proposals.strategies import Strategy

__all__ = ["ProposalFile", "SelectiveSearch", "Strategy"]
