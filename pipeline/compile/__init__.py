"""From a placed graph to what is deployed: NPU programs, CPU models, the bundle and its deploy folder."""
