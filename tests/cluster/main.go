// One binary with the programs of a small Kubernetes cluster, for tests: what
// upstream's own cmd/*/ call, linked once, so that they share most of their
// code. Called as kubectl (or any other of them), it is that program.
//
// Beside those it knows how a cluster in one folder hangs together (prepare,
// start, run, wait), so that the script and the tests need not know it twice.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Each builds its command only when asked: they share one registry of flags
// and feature gates, and only one of them may use it.
var programs = map[string]func() *cobra.Command{
	"etcd":                    etcdCommand,
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

// What is no program of upstream's but started like one.
var parts = map[string]func(string) error{"node": node, "inside-node": insideNode}

var extents = map[string]extent{"--api": apiServer, "--controllers": withControllers, "--node": withNode}

const usage = `kube PROGRAM [FLAG…]           etcd, kube-apiserver, kube-controller-manager,
                               kube-scheduler, kubelet or kubectl
kube prepare DIR               certificates, kubeconfigs and a port for a cluster in DIR
kube start PROGRAM DIR [FLAG…] that program (or node: containerd and kubelet)
                               with the flags for the cluster in DIR
kube run [--node] DIR          all of them, until SIGTERM; their output goes to DIR/*.log
kube wait [--api|--node] DIR   returns when the cluster in DIR answers (60 s at most)`

func main() {
	name := filepath.Base(os.Args[0])
	if programs[name] == nil && name != "kubectl" {
		if len(os.Args) < 2 {
			end(2, usage)
		}
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	switch name {
	case "kubectl":
		runKubectl()
	case "prepare", "run", "wait":
		flags, upTo := os.Args[1:], withControllers
		if len(flags) == 2 {
			known := false
			if upTo, known = extents[flags[0]]; !known {
				end(2, usage)
			}
			flags = flags[1:]
		}
		if len(flags) != 1 {
			end(2, usage)
		}
		var err error
		switch name {
		case "prepare":
			err = prepare(flags[0])
		case "run":
			err = run(flags[0], upTo)
		case "wait":
			err = wait(flags[0], upTo)
		}
		if err != nil {
			end(1, fmt.Sprintf("%s: %v", name, err))
		}
	case "start":
		if len(os.Args) < 3 {
			end(2, usage)
		}
		name = os.Args[1]
		if part := parts[name]; part != nil {
			if err := part(os.Args[2]); err != nil {
				end(1, fmt.Sprintf("%s: %v", name, err))
			}
			return
		}
		if programs[name] == nil {
			end(2, usage)
		}
		flags, err := flagsOf(name, os.Args[2])
		if err != nil {
			end(1, fmt.Sprintf("start %s: %v", name, err))
		}
		os.Args = append(append([]string{name}, flags...), os.Args[3:]...)
		os.Exit(cli.Run(programs[name]()))
	default:
		if programs[name] == nil {
			end(2, usage)
		}
		os.Exit(cli.Run(programs[name]()))
	}
}

// As upstream's cmd/kubectl.
func runKubectl() {
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}

func end(code int, text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(code)
}
