package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const patience = 60 * time.Second

// How much of a cluster is waited for; each includes those before it.
type extent int

const (
	apiServer extent = iota
	// They have made what every namespace gets.
	withControllers
	withNode
)

// The whole cluster, until SIGTERM or until one of its programs ends.
func run(dir string, upTo extent) error {
	// A child gets its death signal when the thread that started it ends.
	runtime.LockOSThread()
	if err := prepare(dir); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	ends := make(chan error, 8)
	var started []*process
	// Last started, first ended: the API server stays until its clients are gone.
	defer func() {
		for at := len(started) - 1; at >= 0; at-- {
			started[at].stop()
		}
	}()
	start := func(names ...string) error {
		for _, name := range names {
			process, err := startProcess(name, dir, ends)
			if err != nil {
				return err
			}
			started = append(started, process)
		}
		return nil
	}
	if err := start("etcd"); err != nil {
		return err
	}
	// The API server would be a second in coming back to one that is late.
	for try := 0; !answers(filepath.Join(dir, "etcd.sock")) && try < 500; try++ {
		time.Sleep(20 * time.Millisecond)
	}
	if err := start("kube-apiserver"); err != nil {
		return err
	}
	if err := waitFor(ctx, dir, apiServer); err != nil {
		return err
	}
	if err := start("kube-controller-manager"); err != nil {
		return err
	}
	if upTo == withNode {
		if err := start("kube-scheduler", "node"); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ends:
		return err
	}
}

func answers(socket string) bool {
	connection, err := net.Dial("unix", socket)
	if err == nil {
		_ = connection.Close()
	}
	return err == nil
}

type process struct {
	*exec.Cmd
	done chan struct{}
}

func startProcess(name, dir string, ends chan<- error) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process := &process{exec.Command(self, "start", name, dir), make(chan struct{})}
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := process.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := process.Wait()
		close(process.done)
		ends <- fmt.Errorf("%s ended (%v): see %s", name, err, path)
	}()
	return process, nil
}

func (process *process) stop() {
	_ = process.Process.Signal(syscall.SIGTERM)
	select {
	case <-process.done:
	case <-time.After(15 * time.Second):
		_ = process.Process.Kill()
		<-process.done
	}
}

func wait(dir string, upTo extent) error {
	return waitFor(context.Background(), dir, upTo)
}

func waitFor(ctx context.Context, dir string, upTo extent) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last := errors.New("not asked yet")
	for ctx.Err() == nil {
		if last = look(ctx, dir, upTo); last == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("not ready in %s: %w", patience, last)
}

// What is missing, if anything.
func look(ctx context.Context, dir string, upTo extent) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return fmt.Errorf("%w %s", err, body)
	}
	if upTo == apiServer {
		return nil
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err
	}
	if upTo == withControllers {
		return nil
	}
	node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("the node is not ready: %v", node.Status.Conditions)
}
