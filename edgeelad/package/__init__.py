"""Write, open and verify packages: the folders that ship to devices."""

from edgeelad.package.info import PackageInfo
from edgeelad.package.open import Package, is_package, open_package
from edgeelad.package.verify import VerifyReport, verify_package
from edgeelad.package.write import write_package

__all__ = [
    "Package",
    "PackageInfo",
    "VerifyReport",
    "is_package",
    "open_package",
    "verify_package",
    "write_package",
]
