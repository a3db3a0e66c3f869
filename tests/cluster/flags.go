package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The flags of each program for the cluster in dir, which becomes the working
// folder: all paths are short and relative.
func flagsOf(program, dir string) ([]string, error) {
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	switch program {
	case "etcd":
		return nil, nil
	case "kube-apiserver":
		port, err := os.ReadFile("port")
		if err != nil {
			return nil, fmt.Errorf("no cluster here: %w", err)
		}
		return []string{
			"--etcd-servers=unix://etcd.sock",
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			"--secure-port=" + strings.TrimSpace(string(port)),
			// A loopback address may not be an endpoint: nobody gets to it by the service.
			"--endpoint-reconciler-type=none",
			"--client-ca-file=ca.crt",
			"--tls-cert-file=server.crt",
			"--tls-private-key-file=server.key",
			"--kubelet-client-certificate=to-node.crt",
			"--kubelet-client-key=to-node.key",
			"--kubelet-preferred-address-types=InternalIP",
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=service-accounts.key",
			"--service-account-signing-key-file=service-accounts.key",
			"--service-cluster-ip-range=10.43.0.0/16",
			"--profiling=false",
			"--event-ttl=10m",
			// When it ends, its watches end, too; it would wait a minute for them.
			"--shutdown-watch-termination-grace-period=1s",
		}, nil
	case "kube-controller-manager":
		return []string{
			"--kubeconfig=kube-controller-manager.kubeconfig",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=service-accounts.key",
			"--root-ca-file=ca.crt",
			"--cluster-signing-cert-file=ca.crt",
			"--cluster-signing-key-file=ca.key",
			"--leader-elect=false",
			"--secure-port=0",
			"--profiling=false",
			// One test cluster: the usual limit only makes tests wait.
			"--kube-api-qps=200",
			"--kube-api-burst=400",
		}, nil
	case "kube-scheduler":
		return []string{
			"--kubeconfig=kube-scheduler.kubeconfig",
			"--leader-elect=false",
			"--secure-port=0",
			"--profiling=false",
			"--kube-api-qps=200",
			"--kube-api-burst=400",
		}, nil
	case "kubelet":
		here, err := filepath.Abs(".")
		if err != nil {
			return nil, err
		}
		address, err := os.ReadFile("node-ip")
		if err != nil {
			return nil, err
		}
		return []string{
			"--kubeconfig=kubelet.kubeconfig",
			"--config=kubelet.yaml",
			"--hostname-override=" + nodeName,
			"--root-dir=" + filepath.Join(here, "kubelet"),
			"--cert-dir=" + filepath.Join(here, "kubelet", "pki"),
			"--node-ip=" + string(address),
		}, nil
	}
	return nil, fmt.Errorf("no flags for %s", program)
}
