package sharedstate.peer;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.errors.TopicExistsException;

/** The source and the output topic, created as the state-service creates them. */
final class Topics {
    private Topics() {}

    /** Creates what is missing and returns the source topic's partitions. */
    static int ensure(Settings settings) throws ExecutionException, InterruptedException {
        int partitions = (int) settings.number("partitions");
        try (Admin admin =
                Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, settings.text("bootstrap.servers")))) {
            create(admin, new NewTopic(settings.reports(), partitions, (short) -1));
            create(admin, new NewTopic(settings.states(), partitions, (short) -1)
                    .configs(Map.of("cleanup.policy", "compact")));
            return admin.describeTopics(List.of(settings.reports()))
                    .allTopicNames()
                    .get()
                    .get(settings.reports())
                    .partitions()
                    .size();
        }
    }

    private static void create(Admin admin, NewTopic topic) throws ExecutionException, InterruptedException {
        try {
            admin.createTopics(List.of(topic)).all().get();
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof TopicExistsException)) {
                throw e;
            }
        }
    }
}
