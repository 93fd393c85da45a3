# Runs in the kernel guest, as root: kernel_guest.sh FOLDER MODULES COMMAND...
#
# What virtme-ng has mounted as / asks the host for every byte again, each time a program starts. The same
# files with a cache, and a layer in memory above them that takes what is written, are several times faster:
# the command runs in there.  FOLDER: of the kernel's modules; MODULES: those to load first, with commas, may be empty.
set -eu
folder=$1
modules=$2
shift 2
root=/run/kernel-guest/root
below=/run/kernel-guest/below
above=/run/kernel-guest/above
mkdir -p "$root" "$below"
mount -t tmpfs -o size=60% above /run/kernel-guest
mkdir -p "$root" "$below" "$above/files" "$above/work"
modprobe overlay
mount -t 9p -o ro,version=9p2000.L,trans=virtio,access=any,msize=524288,cache=loose host "$below"
mount -t overlay -o "lowerdir=$below,upperdir=$above/files,workdir=$above/work" root "$root"
modprobe configfs
for each in ${modules//,/ }; do modprobe "$each"; done
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
mount -t tmpfs run "$root/run"
mkdir -p "$root/usr/lib/modules"
ln -sfn "$folder" "$root/usr/lib/modules/$(uname -r)"
# it has found the disks, and its rules would hold up each of LVM's commands for seconds: tests that need it start it
udevadm control --exit
ip link set lo up
exec chroot "$root" "$@"
