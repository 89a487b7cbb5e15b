"""The Conan 2 recipe: `conan create packaging/conan` packs the header of the tree that this file lies in."""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout


class AnyioNet(ConanFile):
    name = "anyio_net"
    license = "MIT"
    description = "Sockets for C++20 in one header: coroutines and callbacks, TCP, UNIX, UDP, TLS, simulation"
    topics = ("sockets", "coroutines", "networking", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_openssl": [True, False], "with_mbedtls": [True, False]}
    default_options = {"with_openssl": False, "with_mbedtls": False}
    no_copy_source = True

    @property
    def _tree(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        text = load(self, os.path.join(self._tree, "anyio_net.hpp"))
        numbers = re.findall(r"^#define ANYIO_NET_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", text, re.MULTILINE)
        self.version = ".".join(numbers)

    def export_sources(self):
        for pattern in ("anyio_net.hpp", "anyio_net.cppm", "LICENSE"):
            copy(self, pattern, src=self._tree, dst=self.export_sources_folder)

    def layout(self):
        basic_layout(self, src_folder=".")

    def requirements(self):
        if self.options.with_openssl:
            self.requires("openssl/[>=3 <4]")
        if self.options.with_mbedtls:
            self.requires("mbedtls/[>=3.2 <4]")

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def package(self):
        copy(self, "anyio_net.*", src=self.source_folder, dst=os.path.join(self.package_folder, "include"))
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", "anyio_net")
        base = self.cpp_info.components["anyio_net"]
        base.set_property("cmake_target_name", "anyio_net::anyio_net")
        base.set_property("pkg_config_name", "anyio_net")
        base.bindirs, base.libdirs = [], []
        if self.settings.os in ("Linux", "FreeBSD"):
            base.system_libs = ["pthread"]
        engines = {
            "openssl": (self.options.with_openssl, ["openssl::openssl"]),
            "mbedtls": (self.options.with_mbedtls, ["mbedtls::mbedtls"]),
        }
        for name, (wanted, requirements) in engines.items():
            if wanted:
                component = self.cpp_info.components[name]
                component.set_property("cmake_target_name", f"anyio_net::{name}")
                component.set_property("pkg_config_name", f"anyio_net-{name}")
                component.bindirs, component.libdirs, component.includedirs = [], [], []
                component.defines = [f"ANYIO_NET_{name.upper()}"]
                component.requires = ["anyio_net", *requirements]
