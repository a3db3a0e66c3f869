package main

import (
	"net/url"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// One member, on a Unix socket of its own: no port, nobody else's data.
func etcdCommand() *cobra.Command {
	var dir, socket string
	command := &cobra.Command{
		Use:           "etcd",
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := signal.NotifyContext(command.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			config := embed.NewConfig()
			config.Name = "tests"
			config.Dir = dir
			config.ListenClientUrls = []url.URL{{Scheme: "unix", Host: socket}}
			config.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: socket + ".peer"}}
			// Never dialled: there are no peers.
			config.InitialCluster = config.InitialClusterFromName(config.Name)
			config.EnableGRPCGateway = false
			config.LogLevel = "warn"
			// Else it warns of every request.
			config.WarningUnaryRequestDuration = time.Second
			// What a killed process wrote is kept; only a power cut would lose
			// it, and that is nothing that this data has to live through.
			config.UnsafeNoFsync = true
			// Tests come and go in minutes: their history may, too.
			config.AutoCompactionMode = "periodic"
			config.AutoCompactionRetention = "10m"
			etcd, err := embed.StartEtcd(config)
			if err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				etcd.Close()
				return nil
			case err := <-etcd.Err():
				return err
			}
		},
	}
	command.Flags().StringVar(&dir, "data-dir", "etcd", "its folder")
	command.Flags().StringVar(&socket, "socket", "etcd.sock", "its socket, in the working folder")
	return command
}
