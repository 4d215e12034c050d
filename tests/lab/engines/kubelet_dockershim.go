// The kubelet's own dockershim of Kubernetes 1.23 as a program: a peer that wrote what nodes on Docker carry today.
//
// The kubelet ran it inside itself and removed every pod that it had not asked for. Here it only serves its socket.
package main

import (
	"flag"
	"log"
	"net"
	"time"

	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cri/streaming"
	"k8s.io/kubernetes/pkg/kubelet/dockershim"
	"k8s.io/kubernetes/pkg/kubelet/dockershim/remote"
)

func main() {
	// Named as the kubelet of 1.23 named them, where it had a flag.
	endpoint := flag.String("container-runtime-endpoint", "", "unix:// address to serve CRI v1alpha2 at")
	docker := flag.String("docker-endpoint", "unix:///var/run/docker.sock", "Docker's address")
	pause := flag.String("pod-infra-container-image", "registry.k8s.io/pause:3.10", "image of the sandboxes")
	root := flag.String("root-directory", "/var/lib/dockershim", "directory of the checkpoints")
	plugin := flag.String("network-plugin", "", "cni, or empty for Docker's bridge")
	configurations := flag.String("cni-conf-dir", "/etc/cni/net.d", "directory of CNI configurations")
	programs := flag.String("cni-bin-dir", "/opt/cni/bin", "directories of CNI plugins, separated by commas")
	cache := flag.String("cni-cache-dir", "/var/lib/cni/cache", "directory of CNI results")
	flag.Parse()

	streams := streaming.DefaultConfig
	streams.Addr = net.JoinHostPort("localhost", "0")
	service, err := dockershim.NewDockerService(
		&dockershim.ClientConfig{
			DockerEndpoint:            *docker,
			RuntimeRequestTimeout:     2 * time.Minute,
			ImagePullProgressDeadline: time.Minute,
		},
		*pause,
		&streams,
		&dockershim.NetworkPluginSettings{
			HairpinMode:        kubeletconfig.HairpinNone,
			PluginName:         *plugin,
			PluginConfDir:      *configurations,
			PluginBinDirString: *programs,
			PluginCacheDir:     *cache,
		},
		"",
		"",
		*root,
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := remote.NewDockerServer(*endpoint, service).Start(); err != nil {
		log.Fatal(err)
	}
	select {}
}
