"""The libvirt driver: real guests under KVM, or QEMU emulation where KVM can't run them."""
