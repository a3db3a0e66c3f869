package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// The name of the one node.
const nodeName = "tests"

// Who talks to the API server with a certificate: file, name, group.
var people = [][3]string{
	{"admin", "admin", "system:masters"},
	{"kube-controller-manager", "system:kube-controller-manager", ""},
	{"kube-scheduler", "system:kube-scheduler", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
}

// Keys, certificates and kubeconfigs for a cluster in dir; what is there
// stays, so that a cluster keeps its port and its authority.
func prepare(dir string) error {
	done := filepath.Join(dir, "admin.kubeconfig")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	address := fmt.Sprintf("https://127.0.0.1:%d", port)
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	accounts, err := newKey()
	if err != nil {
		return err
	}
	server, err := ca.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 43, 0, 1)},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	// The API server's own word to the kubelet, for logs and exec.
	toNode, err := ca.client("kube-apiserver", "system:masters")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"port":                 fmt.Appendln(nil, port),
		"ca.crt":               ca.cert,
		"ca.key":               ca.key,
		"service-accounts.key": accounts,
		"server.crt":           server.cert,
		"server.key":           server.key,
		"to-node.crt":          toNode.cert,
		"to-node.key":          toNode.key,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	// admin's comes last: it says that all the others are there.
	for at := range people {
		person := people[len(people)-1-at]
		pair, err := ca.client(person[1], person[2])
		if err != nil {
			return err
		}
		config := api.NewConfig()
		config.Clusters["tests"] = &api.Cluster{Server: address, CertificateAuthorityData: ca.cert}
		config.AuthInfos[person[0]] = &api.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key}
		config.Contexts["tests"] = &api.Context{Cluster: "tests", AuthInfo: person[0]}
		config.CurrentContext = "tests"
		if err := clientcmd.WriteToFile(*config, filepath.Join(dir, person[0]+".kubeconfig")); err != nil {
			return err
		}
	}
	return nil
}

// A port on loopback, below the range that outgoing connections and other
// tests take theirs from: nobody takes it while the server is down.
func freePort() (int, error) {
	for range 100 {
		offset, err := rand.Int(rand.Reader, big.NewInt(9000))
		if err != nil {
			return 0, err
		}
		port := 21000 + int(offset.Int64())
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, errors.New("no free port between 21000 and 30000")
}

// A certificate and its key, both PEM.
type pair struct{ cert, key []byte }

type authority struct {
	pair
	parsed *x509.Certificate
	signer *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	ca := &authority{}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tests"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	made, err := ca.sign(template)
	if err != nil {
		return nil, err
	}
	ca.pair = *made
	return ca, nil
}

func (ca *authority) client(name, group string) (*pair, error) {
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	return ca.sign(&x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// Signs with the authority's key; its own certificate, when it has none yet.
func (ca *authority) sign(template *x509.Certificate) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	// Clocks of devices under test may be behind.
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	template.NotAfter = time.Now().AddDate(10, 0, 0)
	if template.KeyUsage == 0 {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	parent, signer := ca.parsed, ca.signer
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	if ca.parsed == nil {
		if ca.parsed, err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
		ca.signer = key
	}
	private, err := encode(key)
	return &pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), private}, err
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return encode(key)
}

func encode(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}
