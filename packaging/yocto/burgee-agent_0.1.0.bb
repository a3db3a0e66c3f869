SUMMARY = "burgee agent: makes a device run what its signed fleet repository says"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=${BURGEE_LICENSE_MD5}"

# The release's own static program: it needs nothing of the image but a kernel.
# BURGEE_RELEASES is a folder (file:///…) or an address. The checksums are those
# of the release's SHA256SUMS; verify its signature before you copy them:
#   ssh-keygen -Y verify -f release_signers -I release -n burgee-release -s SHA256SUMS.sig <SHA256SUMS
BURGEE_RELEASES ?= "https://releases.example.com/burgee"
BURGEE_LICENSE_MD5 ?= "3b83ef96387f14655fc854ddc3c6bd57"
BURGEE_ARCH:x86-64 = "x86_64"
BURGEE_ARCH:aarch64 = "aarch64"
BURGEE_ARCH:arm = "armv7"
BURGEE_ARCH:riscv64 = "riscv64"
BURGEE_SHA256 ?= "${@d.getVar('BURGEE_SHA256_' + (d.getVar('BURGEE_ARCH') or '')) or ''}"
# In a .bbappend or the distribution's configuration:
# BURGEE_SHA256_aarch64 = "…"

SRC_URI = "${BURGEE_RELEASES}/${PV}/burgee-${PV}-${BURGEE_ARCH}.tar.gz;name=release \
           file://agent.toml \
           file://allowed_signers"
SRC_URI[release.sha256sum] = "${BURGEE_SHA256}"
S = "${WORKDIR}/burgee-${PV}-${BURGEE_ARCH}"

COMPATIBLE_HOST = "(x86_64|aarch64|arm|riscv64).*-linux"
COMPATIBLE_HOST:arm = "${@bb.utils.contains('TUNE_FEATURES', 'callconvention-hard', '.*-linux.*', 'null', d)}"
inherit systemd
SYSTEMD_SERVICE:${PN} = "burgee-agent.service"
# It is stripped and static already.
INSANE_SKIP:${PN} += "already-stripped"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/bin/burgee-agent ${D}${bindir}/burgee-agent
    install -D -m 0644 ${S}/systemd/burgee-agent.service ${D}${systemd_system_unitdir}/burgee-agent.service
    install -D -m 0644 ${S}/systemd/tmpfiles.d/burgee-agent.conf ${D}${nonarch_libdir}/tmpfiles.d/burgee-agent.conf
    install -d ${D}${systemd_unitdir}/system-generators ${D}${sysconfdir}/burgee/agent.d
    ln -s ${bindir}/burgee-agent ${D}${systemd_unitdir}/system-generators/burgee-agent-generator
    # The image's own: which repository, and whose commits are trusted.
    install -D -m 0644 ${UNPACKDIR}/agent.toml ${D}${nonarch_libdir}/burgee/agent.d/10-image.toml
    install -m 0644 ${UNPACKDIR}/allowed_signers ${D}${sysconfdir}/burgee/allowed_signers
}
UNPACKDIR ??= "${WORKDIR}"

FILES:${PN} += "${systemd_unitdir} ${nonarch_libdir}"
CONFFILES:${PN} = "${sysconfdir}/burgee/allowed_signers"
RRECOMMENDS:${PN} = "ca-certificates"
