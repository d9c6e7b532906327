"""The space of ``vit`` for 32 x 32 images in patches of 4: 1.1e9 archs of 312 to 634 MMACs.

Source: AutoFormer (Chen et al. 2021), table 1, supernet-tiny.
"""

from search_spaces.vit import space

SPACE = space("vit_cifar", resolution=32, patch=4)
