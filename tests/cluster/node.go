package main

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A node: containerd and the kubelet as children of a process that is PID 1 of
// a namespace of its own, with mounts of its own. When that ends, the kernel
// ends every container and every mount with it, however it ended. What is left
// then, a bridge and empty cgroups, the outer process takes away.
//
// Containers share the machine's network through a bridge; services have no
// addresses here, there is no kube-proxy, and pods do not reach the API
// server, which is on loopback.

const (
	pauseImage = "localhost/pause:1"
	// What a cluster's cgroups are below.
	cgroups = "/sys/fs/cgroup"
)

// What a node keeps from one start to the next.
type place struct {
	// Ends the names of the bridge and of the cgroup.
	ID string
	// The node's own address on the bridge; pods have the others of the /24.
	Address string
}

func (place place) bridge() string { return "bgkube" + place.ID }
func (place place) cgroup() string { return "burgee-" + place.ID }
func (place place) subnet() string { return strings.TrimSuffix(place.Address, ".1") + ".0/24" }

// The outer process.
func node(dir string) error {
	runtime.LockOSThread()
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	place, err := newPlace(dir)
	if err != nil {
		return err
	}
	defer place.remove()
	if err := place.make(); err != nil {
		return err
	}
	if err := writeNode(dir, place); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	inside := exec.Command(self, "start", "inside-node", dir)
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := inside.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- inside.Wait() }()
	select {
	case <-signals:
		_ = inside.Process.Kill()
		<-done
		return nil
	case err := <-done:
		return fmt.Errorf("the node ended: %w", err)
	}
}

func newPlace(dir string) (place, error) {
	var it place
	path := filepath.Join(dir, "node.json")
	if content, err := os.ReadFile(path); err == nil {
		return it, json.Unmarshal(content, &it)
	}
	for range 50 {
		random := make([]byte, 4)
		if _, err := rand.Read(random); err != nil {
			return it, err
		}
		it = place{ID: fmt.Sprintf("%x", random), Address: fmt.Sprintf("10.%d.%d.1", 214+random[0]%8, random[1])}
		if !taken(it.Address) {
			content, err := json.Marshal(it)
			if err != nil {
				return it, err
			}
			return it, os.WriteFile(path, content, 0o600)
		}
	}
	return it, errors.New("no free subnet between 10.214.0.0 and 10.221.255.0")
}

func taken(address string) bool {
	addresses, _ := net.InterfaceAddrs()
	for _, it := range addresses {
		if net, ok := it.(*net.IPNet); ok && net.IP.String() == address {
			return true
		}
	}
	return false
}

func (place place) make() error {
	// Left by one that was killed.
	place.remove()
	for _, line := range []string{
		"link add " + place.bridge() + " type bridge",
		"address add " + place.Address + "/24 dev " + place.bridge(),
		"link set " + place.bridge() + " up",
	} {
		if err := command("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	for _, root := range hierarchies() {
		if available, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
			for _, controller := range strings.Fields(string(available)) {
				_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0)
			}
		}
		if err := os.MkdirAll(filepath.Join(root, place.cgroup()), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (place place) remove() {
	_ = exec.Command("ip", "link", "delete", place.bridge()).Run()
	for _, root := range hierarchies() {
		var found []string
		_ = filepath.WalkDir(filepath.Join(root, place.cgroup()), func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return nil
		})
		for at := len(found) - 1; at >= 0; at-- {
			// Processes that were killed are there for a moment more.
			for try := 0; syscall.Rmdir(found[at]) == syscall.EBUSY && try < 100; try++ {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

// One (cgroup v2), or one for each controller.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}
	}
	var found []string
	entries, _ := os.ReadDir(cgroups)
	for _, entry := range entries {
		if entry.IsDir() {
			found = append(found, filepath.Join(cgroups, entry.Name()))
		}
	}
	return found
}

func writeNode(dir string, place place) error {
	listener, err := net.Listen("tcp", place.Address+":0")
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	files := map[string]string{
		"containerd.toml": fmt.Sprintf(`version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "%[2]s"
stream_server_address = "127.0.0.1"
disable_apparmor = true
# Lower scores than its own need a capability that build machines may lack.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "%[1]s/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
`, dir, pauseImage),
		"cni/10-bridge.conflist": fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "tests", "plugins": [{
  "type": "bridge", "bridge": "%s", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "%s/cni-data"}}]}
`, place.bridge(), place.subnet(), dir),
		"kubelet.yaml": fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[3]s
port: %[4]d
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%[1]s/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /%[2]s
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: ""
podLogsDir: %[1]s/pod-logs
volumePluginDir: %[1]s/volume-plugins
serializeImagePulls: false
maxPods: 100
# A build machine's disk may be fuller than a node's ought to be.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 0%%, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%, imagefs.inodesFree: 0%%}
`, dir, place.cgroup(), place.Address, port),
		"node-ip": place.Address,
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// What the kubelet insists on. It would set it for the whole machine: it is
// shown files that say so instead.
var tunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// PID 1 of the node. Returning ends it.
func insideNode(dir string) error {
	if os.Getpid() != 1 {
		return errors.New("only as PID 1")
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	// Folders with fixed names: each node has its own.
	for _, path := range []string{"/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni"} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for name, value := range tunables {
		path := filepath.Join("/run", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if err := syscall.Mount(path, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	containerd, err := spawn("containerd", "--config", filepath.Join(dir, "containerd.toml"), "--log-level", "warn")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "containerd.sock")
	for start := time.Now(); !answers(socket); time.Sleep(20 * time.Millisecond) {
		if pid, _ := syscall.Wait4(containerd, nil, syscall.WNOHANG, nil); pid == containerd || time.Since(start) > patience {
			return errors.New("containerd does not answer")
		}
	}
	image, err := newPauseImage()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "pause.tar")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		return err
	}
	if err := command("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", path); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	kubelet, err := spawn(self, "start", "kubelet", dir)
	if err != nil {
		return err
	}
	// Orphans come to PID 1: the shims of containers, above all.
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case pid == containerd:
			return fmt.Errorf("containerd ended with %d", status.ExitStatus())
		case pid == kubelet:
			return fmt.Errorf("the kubelet ended with %d", status.ExitStatus())
		}
	}
}

// Not os/exec, which would wait for its child: PID 1 waits for all.
func spawn(program string, arguments ...string) (int, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, append([]string{program}, arguments...), &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
}

func command(program string, arguments ...string) error {
	output, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}

// What holds a pod's namespaces: Debian's static busybox, asleep.
func newPauseImage() ([]byte, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("busybox-static is needed: %w", err)
	}
	layer, err := archive(map[string][]byte{"busybox": busybox})
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/busybox", "sleep", "2147483647"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{
		{"Config": "config.json", "RepoTags": []string{pauseImage}, "Layers": []string{"layer.tar"}},
	})
	if err != nil {
		return nil, err
	}
	return archive(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest})
}

func archive(files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for name, content := range files {
		if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := io.Copy(writer, bytes.NewReader(content)); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), writer.Close()
}
