"""How fast Nelbo is, beside the bare work that it cannot do without."""
