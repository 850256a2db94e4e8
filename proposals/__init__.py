"""Where could objects be? Class-agnostic region proposals as boxes."""
