"""Numbers of the SAME paper, quoted: tables 1 to 4 of the text as it was published.

Source: Xie et al., "SAME: Sample Reconstruction against Model Extraction Attacks", AAAI 2024.
All in percent. The thief of table 1 asks EMNIST digits; ours has EMNIST letters only.
Notes: the text contradicts its table 2 (Knockoff at 6,000 queries 92.53 there, 84.03 in the
table); the table is quoted. Its figures 4 to 7 have no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

Triple = tuple[float, float, float]
"""AUROC, AUPR and FPR95."""

DETECTION: Mapping[tuple[str, int, str], Mapping[str, Triple]] = {
    ("mnist", 1000, "oe"): {
        "jbda": (58.70, 56.28, 84.60),
        "knockoff": (91.78, 92.59, 43.60),
        "dfme": (100.0, 100.0, 0.0),
    },
    ("mnist", 1000, "edm"): {
        "jbda": (66.06, 59.73, 79.60),
        "knockoff": (86.01, 86.70, 64.20),
        "dfme": (100.0, 100.0, 0.0),
    },
    ("mnist", 1000, "same"): {
        "jbda": (93.30, 92.95, 27.40),
        "knockoff": (99.37, 99.47, 1.30),
        "dfme": (100.0, 100.0, 0.0),
    },
    ("mnist", 4000, "oe"): {
        "jbda": (60.05, 56.79, 83.50),
        "knockoff": (91.70, 92.24, 42.90),
        "dfme": (100.0, 100.0, 0.03),
    },
    ("mnist", 4000, "edm"): {
        "jbda": (71.37, 65.42, 74.65),
        "knockoff": (85.04, 85.63, 67.11),
        "dfme": (99.99, 99.99, 0.0),
    },
    ("mnist", 4000, "same"): {
        "jbda": (93.10, 92.84, 28.52),
        "knockoff": (99.19, 99.38, 1.25),
        "dfme": (99.91, 99.75, 0.15),
    },
    ("cifar10", 6000, "oe"): {
        "jbda": (74.53, 70.41, 64.37),
        "knockoff": (77.38, 72.74, 60.77),
        "dfme": (74.02, 60.64, 44.30),
    },
    ("cifar10", 6000, "edm"): {
        "jbda": (73.59, 69.50, 71.35),
        "knockoff": (71.72, 67.63, 72.52),
        "dfme": (80.35, 73.55, 49.72),
    },
    ("cifar10", 6000, "same"): {
        "jbda": (80.89, 79.07, 56.68),
        "knockoff": (84.03, 79.97, 43.98),
        "dfme": (97.64, 97.43, 12.52),
    },
    ("cifar10", 10000, "oe"): {
        "jbda": (73.68, 69.53, 63.14),
        "knockoff": (77.82, 72.96, 59.96),
        "dfme": (76.17, 62.99, 43.28),
    },
    ("cifar10", 10000, "edm"): {
        "jbda": (74.17, 69.89, 69.98),
        "knockoff": (71.27, 67.02, 73.03),
        "dfme": (81.41, 75.31, 48.52),
    },
    ("cifar10", 10000, "same"): {
        "jbda": (80.66, 78.77, 58.18),
        "knockoff": (83.84, 79.71, 44.13),
        "dfme": (98.21, 97.96, 8.02),
    },
}
"""Tables 1 and 2: data set, budget and method to attack to figures."""

DEFENDED: Mapping[str, tuple[float, float]] = {
    "oe": (80.83, 1562.92),
    "edm": (80.37, 2014.80),
    "same": (83.28, 170.44),
}
"""Table 3: accuracy and training seconds. Its data set is not named; the accuracies are those of
CIFAR-10. The seconds of SAME cannot hold the 500 epochs of its autoencoder, some 1.4e17
operations."""

RATIOS: Mapping[tuple[str, float], tuple[float, float, float, float]] = {
    ("mnist", 0.01): (98.93, 82.78, 3.90, 3.05),
    ("mnist", 0.05): (99.07, 95.42, 3.82, 3.12),
    ("mnist", 0.10): (99.15, 97.79, 3.70, 2.95),
    ("mnist", 0.30): (99.23, 99.30, 3.65, 2.80),
    ("mnist", 0.50): (99.21, 99.56, 3.70, 2.80),
    ("mnist", 0.90): (99.21, 99.71, 3.70, 2.80),
    ("cifar10", 0.01): (86.91, 50.91, 61.20, 46.62),
    ("cifar10", 0.05): (87.22, 70.90, 61.20, 42.05),
    ("cifar10", 0.10): (87.64, 79.53, 60.45, 40.58),
    ("cifar10", 0.30): (88.84, 90.94, 51.40, 33.90),
    ("cifar10", 0.50): (89.39, 94.23, 47.20, 31.45),
    ("cifar10", 0.90): (89.39, 95.98, 47.88, 31.47),
}
"""Table 4: data set and malicious ratio to AUROC, AUPR, FPR95 and FPR90. Neither the attack nor
what the ratio is of is named."""
