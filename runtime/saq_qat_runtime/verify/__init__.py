"""How far an engine departs, on its machine, from the network that was trained."""
