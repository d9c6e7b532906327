"""OFA's MobileNetV3, width 1.2: 7371^5 = 2.2e19 archs of 193 to 843 MMACs at 224 px, 100 at 160 px.

Source: Once-for-All (Cai et al. 2020), section 4 and released code.
"""

from search_spaces.ofa_mobilenet_v3 import space

SPACE = space("ofa_mobilenet_v3_w12", 1.2)
